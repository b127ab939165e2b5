"""hw_sim: plants on the bench that speak real protocols, break on cue, and say when they did.

    scenario.py scenarios/   what one run is, as TOML; those that are shipped
    plant.py plants/         what a plant is; those that there are
    waveform.py bearing.py   what they are made of
    fault.py catalogue.py    what a fault is; all of them in one table, and how one is written
    sensor.py                the faults of sensors; those of wires stand beside them
    bench.py                 plants with their faults, and their healthy twins
    labels.py trace.py       the ground truth; every value of every step
    wire.py section.py       what a wire is, and what a scenario may say of one
    mqtt/ modbus/ opcua/ serial/   one wire each: section.py, faults.py, wire.py, and what these need
    station.py control.py    all of it together, until somebody says stop; the socket to switch faults by
    replay/ load/            a recorded data set in the place of a plant; a fixed load, and its null reader
    cli/                     `python -m hw_sim`, a command a file
    duration.py tasks.py     times as people write them; tasks
    ports.py tty.py pki.py   free ports; pseudo-terminals; certificates

It never imports dxad and is never imported by it: they meet on the wire. A new plant is a file in plants/, a
new fault a row of a table, a new wire a package of the kind that wire.py describes.
"""
