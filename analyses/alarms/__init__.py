"""The probe's alarms: false ones, power, runs with planted faults."""
