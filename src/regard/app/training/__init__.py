"""One loop for all recipes: runs that stop and go on to the last bit, and the files that they leave."""
