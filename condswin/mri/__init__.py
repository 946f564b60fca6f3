"""MRI: single-coil k-space in fastMRI's file format, undersampled and scored by fastMRI's protocol."""
