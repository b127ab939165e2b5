"""The MQTT wire: section.py, what a scenario may say of it; faults.py, how it breaks; wire.py, itself.

device ─▶ publisher ─▶ broker ─▶ gate ═══ clients
payload, spoil          own, or     faults of the link, login, TLS,
                        another's   both versions on one port
"""
