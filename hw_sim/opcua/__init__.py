"""The OPC-UA wire: section.py, what a scenario may say of it; faults.py, how it breaks; wire.py, the wire."""
