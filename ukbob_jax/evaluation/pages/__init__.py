"""The sections of a report, one file each: what a stage of the loop did, from the files that it wrote."""
