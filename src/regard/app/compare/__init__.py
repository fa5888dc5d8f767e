"""One recipe with several attentions: trained side by side, measured, and shown in one table and one report."""
