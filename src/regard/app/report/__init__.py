"""What is seen of a model: figures, curves and pages of HTML that stand alone."""
