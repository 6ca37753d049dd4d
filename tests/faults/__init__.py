"""What can go wrong, provoked one by one and in any order."""
