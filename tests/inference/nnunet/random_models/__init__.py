"""Seeded random model folders of nnU-Net with scans, and what nnU-Net itself makes of them. Needs torch and nnunetv2."""
