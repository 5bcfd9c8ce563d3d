"""What the pages of `docs/reference` say of fields, commands, exit codes and files, read from the code itself."""
