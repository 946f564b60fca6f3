"""Where raw files come from: folders, and S3 prefixes that are fetched first."""
