"""Data sets and exams as sequences of items, with the checks of their answers; nothing here loads torch."""
