"""Generated abdominal CT; nothing but `condswin.ct.generation` imports this."""
