"""Kills trainings repeatedly and checks what they leave."""
