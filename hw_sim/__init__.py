"""hw_sim: a machine on the bench that speaks real protocols, breaks on cue, and says when it did.

    scenario.py    which faults, at which times
    plant.py       one physical state, stepped every 10 ms; waveform.py its vibration
    fault.py       the table of faults: what each does, where, and how fast
    bench.py       the plant, its healthy twin, and what the sensors read
    labels.py      the ground truth, as JSON lines
    mqtt.py modbus.py opcua.py serial.py   one wire each; broker.py an MQTT broker for the first
    station.py     all of it together, until somebody says stop
    cli.py         `python -m hw_sim`

It never imports dxad and is never imported by it: they meet on the wire. A second plant is a file beside
plant.py; a new fault is a row in fault.py; a new wire is a file that offers what `station.Wire` asks for.
"""
