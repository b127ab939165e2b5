"""hw_sim: a machine on the bench that speaks real protocols, breaks on cue, and says when it did.

    scenario.py    what one run is: seed, faults, duration, places
    plant.py       one physical state, stepped every 10 ms; waveform.py its cycles and its vibration
    fault.py       the table of faults: what each does, where, and how fast
    bench.py       the plant with its faults, and its healthy twin
    labels.py      the ground truth, as JSON lines
    wire.py        what a wire is; mqtt.py modbus.py opcua.py serial.py are one each
    broker.py      an MQTT broker, for a bench without one
    station.py     all of it together, until somebody says stop
    cli.py         `python -m hw_sim`
    duration.py pace.py tasks.py   times as people write them; a beat; asyncio tasks

It never imports dxad and is never imported by it: they meet on the wire. A second plant is a file beside
plant.py; a new fault is a row in fault.py; a new wire is a file of the kind that wire.py describes and a line
in station.py.
"""
