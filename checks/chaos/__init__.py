"""Kills training runs repeatedly and checks what they leave behind."""
