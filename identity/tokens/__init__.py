"""Tokens: fernet is the form; keys rotate."""
