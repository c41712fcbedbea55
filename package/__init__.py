"""The package that the folders are parts of: regular, so that a clone in the folder where Python starts hides none."""
