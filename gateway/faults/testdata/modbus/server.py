"""The Modbus server of the interoperability tests: Debian's python3-pymodbus, which shares no code
with the gateway's driver. Usage: python3 server.py PORT FIRST. It listens on 127.0.0.1 only and prints
"READY PORT" when it serves. The Go side (interop_modbus_test.go) holds the same table of registers.

Holding registers 200 and 201 count the reads of that block: each poll gets the next number, so that a
lost poll is a missing number; FIRST is the number before the first. Each is told on stdout: "SCAN NUMBER MILLISECONDS-SINCE-1970". Holding
registers 900 to 909 do not exist.
"""
import asyncio
import struct
import sys
import time

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext, ModbusSparseDataBlock
from pymodbus.server import StartAsyncTcpServer

SCAN = 200


def orders(raw):
    """The same bytes in the four word and byte orders: ABCD, CDAB, BADC, DCBA."""
    words = [raw[i:i + 2] for i in range(0, len(raw), 2)]
    yield words
    yield words[::-1]
    yield [w[::-1] for w in words]
    yield [w[::-1] for w in words[::-1]]


def registers(words):
    return [int.from_bytes(w, "big") for w in words]


def holding():
    values = {}

    def put(address, words):
        for i, value in enumerate(registers(words)):
            values[address + i] = value

    # From 100: each type in the orders ABCD, CDAB, BADC, DCBA, one after the other.
    address = 100
    for form, value in (
        (">f", 21.625),
        (">i", -123456789),
        (">I", 4000000000),
        (">d", 2.718281828459045),
        (">q", -8589934591),
        (">Q", 9007199254740993),
    ):
        for words in orders(struct.pack(form, value)):
            put(address, words)
            address += len(words)
    put(180, [struct.pack(">h", -12345), struct.pack(">H", 54321)])
    put(190, [b"Pr", b"es", b"s ", b"7\0"])
    for address in (SCAN, SCAN + 1):
        values[address] = 0
    for address in range(300, 310):
        values[address] = 0b1000  # holding:300.3 is true, every other bit false
    return values


class Scanned(ModbusSparseDataBlock):
    """Counts each read that touches register SCAN and answers with the count."""

    scan = int(sys.argv[2])

    def getValues(self, address, count=1):
        if address <= SCAN < address + count:
            self.scan += 1
            self.values[SCAN] = self.scan >> 16
            self.values[SCAN + 1] = self.scan & 0xFFFF
            print("SCAN", self.scan, int(time.time() * 1000), flush=True)
        return super().getValues(address, count)


async def main(port):
    inputs = ModbusSequentialDataBlock(0, [(7 * i) & 0xFFFF for i in range(100)])
    bits = [i % 3 == 0 for i in range(64)]
    unit = ModbusSlaveContext(
        di=ModbusSequentialDataBlock(0, bits),
        co=ModbusSequentialDataBlock(0, [not b for b in bits]),
        hr=Scanned(holding()),
        ir=inputs,
        zero_mode=True,
    )
    context = ModbusServerContext(slaves={1: unit}, single=False)
    server = await StartAsyncTcpServer(
        context, address=("127.0.0.1", port), allow_reuse_address=True, defer_start=True
    )
    await asyncio.gather(server.serve_forever(), ready(port))


async def ready(port):
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.02)
    print("READY", port, flush=True)


asyncio.run(main(int(sys.argv[1])))
