"""A Modbus server of python3-pymodbus 3.0 with the registers of an Eastron SDM630.

usage: peer.py tcp | rtuovertcp | rtu PATH

Prints "ready", for TCP with the port it took. Unit 7. Registers that are not
in the map are refused with exception 2.
"""

import asyncio
import struct
import sys

from pymodbus.datastore import (
    ModbusServerContext,
    ModbusSlaveContext,
    ModbusSparseDataBlock,
)
from pymodbus.server.async_io import ModbusSerialServer, ModbusTcpServer
from pymodbus.transaction import ModbusRtuFramer, ModbusSocketFramer

FLOATS = {
    0x00: 230.1, 0x02: 231.2, 0x04: 232.3,
    0x06: 1.25, 0x08: 2.5, 0x0A: 3.75,
    0x0C: 287.5, 0x0E: -578.0, 0x10: 871.125,
    0x34: 580.625, 0x3C: -12.5, 0x3E: 0.98, 0x46: 49.98,
    0x48: 1234.567, 0x4A: 0.5, 0x4C: 77.25, 0x4E: 8.0,
}
SERIAL = 19451234


def words(pattern, value):
    """Two registers, the high word first."""
    return list(struct.unpack(">HH", struct.pack(pattern, value)))


async def main():
    """Serve until killed."""
    inputs = {}
    for address, value in FLOATS.items():
        inputs[address], inputs[address + 1] = words(">f", value)
    holding = dict(zip((0xFC00, 0xFC01), words(">I", SERIAL)))
    # A clock that stands still, until it is set: 2026-07-16 12:00:10.
    holding.update(zip(range(0x1000, 0x1006), (2026, 7, 16, 12, 0, 10)))
    holding.update(zip(range(0x1010, 0x1014), (26, 7 << 8 | 4 << 5 | 16, 12 << 8, 10000)))
    slave = ModbusSlaveContext(
        ir=ModbusSparseDataBlock(inputs),
        hr=ModbusSparseDataBlock(holding),
        zero_mode=True,
    )
    context = ModbusServerContext(slaves={7: slave}, single=False)
    if sys.argv[1] == "rtu":
        server = ModbusSerialServer(
            context, framer=ModbusRtuFramer, port=sys.argv[2], baudrate=19200, ignore_missing_slaves=True
        )
        await server.start()
        print("ready", flush=True)
        await server.serve_forever()
    framer = ModbusRtuFramer if sys.argv[1] == "rtuovertcp" else ModbusSocketFramer
    server = ModbusTcpServer(context, framer=framer, address=("127.0.0.1", 0), ignore_missing_slaves=True)
    serving = asyncio.ensure_future(server.serve_forever())
    await server.serving
    print("ready", server.server.sockets[0].getsockname()[1], flush=True)
    await serving


asyncio.run(main())
