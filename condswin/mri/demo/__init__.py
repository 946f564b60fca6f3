"""Generated single-coil scans; nothing but `condswin.mri.generation` imports this."""
