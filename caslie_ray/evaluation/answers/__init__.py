"""Answers of models: read in tasks, measured with bootstrap intervals, laid out as the paper's tables, and plotted."""
