"""The probe in loops of other libraries."""
