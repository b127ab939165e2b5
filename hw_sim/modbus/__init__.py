"""The Modbus wire: TCP, RTU and ASCII, over a TCP port or a terminal, with any number of slaves on it.

section.py    what a scenario may say of it                faults.py    how it breaks: rows of the catalogue
encoding.py   one value  <-> registers                     breaking.py  what each row does to an answer
image.py      readings    -> the registers of a slave      port.py      a TCP port and its clients
pdu.py        request     -> answer, of one slave          line.py      a terminal, behind a link
framing.py    bytes      <-> requests and answers          wire.py      all of it together
"""
