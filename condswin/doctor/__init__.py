"""What a run needs, looked at from where the command is run: versions, servers, credentials, devices and room."""
