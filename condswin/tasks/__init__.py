"""What a task brings, a module for each part, so that a step loads (and depends on) no more of a task than it uses.

A task is a package with one module per part of the same name as here: `condswin.mri.learning` holds the `PART` that
implements `condswin.tasks.learning` for reconstruction. `docs/how-to/extending.md` says how to add one.
"""
