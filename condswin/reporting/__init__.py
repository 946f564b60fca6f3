"""What people read: tables in the terminal and one HTML file that works offline."""
