"""The sections of a report and of a model card, by what a reader looks for."""
