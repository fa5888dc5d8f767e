"""The application round the library: command line, data, training, reports and comparisons of recipes."""
