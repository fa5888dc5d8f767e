"""What the experiment `variance` is made of: the model that it measures, and how it shows the results."""
