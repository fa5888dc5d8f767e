"""What recipes that hear share: features of sound, sounds from files, networks, and the errors of transcripts."""
