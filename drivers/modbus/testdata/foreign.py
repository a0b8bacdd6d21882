"""The foreign side of TestPymodbusKinds: a device and a client on pymodbus 3.0, which share no code with the driver.

foreign.py serve KIND WHERE   holds every type in every order, in both tables of registers, and says on standard output, a line each,
                               what stands where: "float32 CDAB 100 1.5". Then READY.
foreign.py put KIND WHERE     writes the same to the holding registers and coils of unit 17, and says the same
foreign.py get KIND WHERE     reads them there, and says what is not as it would have laid it out

The values are laid out by Python's own struct, int.to_bytes, str.encode and datetime."""
import asyncio, datetime, random, struct, sys
from pymodbus.client import ModbusTcpClient, ModbusUdpClient, ModbusSerialClient
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusSlaveContext, ModbusServerContext
from pymodbus.server import StartAsyncTcpServer, StartAsyncUdpServer, StartAsyncSerialServer
from pymodbus.transaction import ModbusAsciiFramer, ModbusRtuFramer, ModbusSocketFramer

ORDERS = ["ABCD", "CDAB", "BADC", "DCBA"]


def ordered(big, order):
    """The registers of a value given with its most significant byte first."""
    words = [big[i : i + 2] for i in range(0, len(big), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    return [int.from_bytes(w, "little" if order in ("BADC", "DCBA") else "big") for w in words]


def digits(n, count, each):
    """count digits of n to the base, packed: nibbles of BCD, registers of mod10k."""
    text = str(n).zfill(count)
    if each == 1:
        return bytes.fromhex(text)
    return b"".join(int(text[i : i + 4]).to_bytes(2, "big") for i in range(0, count, 4))


def wholes(n):
    """Every kind of whole number that can be made of 64 bits: type, its bytes, and the number."""
    for bits in (16, 32, 48, 64):
        u = n % 2**bits
        yield f"uint{bits}", u.to_bytes(bits // 8, "big"), u
        i = u - 2**bits if u >= 2 ** (bits - 1) else u
        yield f"int{bits}", i.to_bytes(bits // 8, "big", signed=True), i
    for count in (4, 8, 16):
        yield f"bcd{4 * count}", digits(n % 10**count, count, 1), n % 10**count
    for count in (8, 12, 16):
        yield f"mod10k{4 * count}", digits(n % 10**count, count, 4), n % 10**count


def reals(f):
    for typ, form in (("float64", ">d"), ("float32", ">f"), ("float16", ">e")):
        try:
            b = struct.pack(form, f)
        except OverflowError:
            continue
        yield typ, b, struct.unpack(form, b)[0].hex()


def times(t):
    """t has whole milliseconds, in UTC."""
    s = t.replace(microsecond=0)
    said, exact = s.isoformat() + "Z", t.isoformat(timespec="milliseconds") + "Z"
    seconds = int(s.replace(tzinfo=datetime.timezone.utc).timestamp())
    yield "unix32", struct.pack(">I", seconds), said
    yield "unix64", struct.pack(">Q", seconds), said
    yield "unixms64", struct.pack(">Q", 1000 * seconds + t.microsecond // 1000), exact
    yield "ymdhms", struct.pack(">6H", *s.timetuple()[:6]), said
    yield "ymdhms3", bytes([s.year - 2000, *s.timetuple()[1:6]]), said
    yield "cp56", bytes([0, t.year - 2000, t.month, t.day, t.hour, t.minute]) + (1000 * t.second + t.microsecond // 1000).to_bytes(2, "big"), exact


def texts(text):
    b = text.encode("utf-8").ljust(12, b"\0")
    yield "string", b, text.encode().hex() or "-"
    yield "bytes", b, b.hex()


PLAIN = {"int16", "uint16", "bcd16", "float16", "ymdhms", "ymdhms3", "cp56", "bytes"}  # have no order


def values():
    r = random.Random(10)
    for n in [0, 1, 2**64 - 1, 2**15, 2**31, 2**47, 2**63, 0x0102030405060708, 2**53 + 1, 9876543210987654] + [r.getrandbits(64) for _ in range(15)]:
        yield from wholes(n)
    for f in [0.0, -0.0, 1.0, -1.5, 123.456, 6.1e-5, 65504.0, 3.4028234663852886e38, 1e-45] + [r.uniform(-1, 1) * 2 ** r.randint(-30, 30) for _ in range(15)]:
        yield from reals(f)
    for year in (2000, 2024, 2037, 2099):
        yield from times(datetime.datetime(year, r.randint(1, 12), r.randint(1, 28), r.randint(0, 23), r.randint(0, 59), r.randint(0, 59), 1000 * r.randint(0, 999)))
    for text in ("", "A", "Press 7", "Grüße °C", "0123456789ab"):
        yield from texts(text)


def layout(first):
    """The registers of all values from an address on, and the lines that say what they are."""
    words, lines = [], []
    for typ, big, said in values():
        orders = ORDERS[:1] if typ in PLAIN else [ORDERS[0], ORDERS[2]] if typ == "string" else ORDERS
        for order in orders:
            lines.append(f"{typ} {order} {first + len(words)} {said}")
            words += ordered(big, order)
        if typ == "uint16":
            at, n = first + len(words) - 1, said
            signed = lambda b: b - 256 if b > 127 else b
            lines += [f"uint8 high {at} {n >> 8}", f"uint8 low {at} {n & 255}", f"int8 high {at} {signed(n >> 8)}", f"int8 low {at} {signed(n & 255)}"]
            low = n % 13
            lines += [f"bits {low}-{low + 3} {at} {n >> low & 15}", f"bool {low} {at} {n >> low & 1}"]
    return words, lines


def pattern(n, k):
    return [a * k % 7 < 3 for a in range(n)]


def bits():
    for table, k in (("coil", 3), ("discrete", 5)):
        for a, b in enumerate(pattern(300, k)):
            yield f"{table} - {a} {int(b)}"


FRAMERS = {"tcp": ModbusSocketFramer, "udp": ModbusSocketFramer, "rtu": ModbusRtuFramer, "ascii": ModbusAsciiFramer,
           "rtuovertcp": ModbusRtuFramer, "asciiovertcp": ModbusAsciiFramer, "rtuoverudp": ModbusRtuFramer, "asciioverudp": ModbusAsciiFramer}
SERIAL = dict(baudrate=115200, parity="N", bytesize=8, stopbits=1)  # pseudo-terminals take no parity from pyserial


async def serve(kind, where):
    words, lines = layout(100)
    block = lambda: ModbusSequentialDataBlock(0, [0] * 100 + words + [0] * 15000)
    flat = lambda k: ModbusSequentialDataBlock(0, pattern(300, k))
    unit = ModbusSlaveContext(hr=block(), ir=block(), co=flat(3), di=flat(5), zero_mode=True)
    more = dict(context=ModbusServerContext(slaves={17: unit}, single=False), framer=FRAMERS[kind], defer_start=True)
    if kind in ("rtu", "ascii"):
        server = await StartAsyncSerialServer(port=where, **more, **SERIAL)
        await server.start()
    else:
        start = StartAsyncUdpServer if kind.endswith("udp") else StartAsyncTcpServer
        server = await start(address=("127.0.0.1", int(where)), **more)
    print("\n".join([*lines, *bits(), "READY"]), flush=True)
    await server.serve_forever()


def client(kind, where):
    if kind in ("rtu", "ascii"):
        c = ModbusSerialClient(where, framer=FRAMERS[kind], **SERIAL)
    else:
        c = (ModbusUdpClient if kind.endswith("udp") else ModbusTcpClient)("127.0.0.1", port=int(where), framer=FRAMERS[kind])
    if not c.connect():
        sys.exit("no connection")
    return c


def well(answer):
    if answer.isError():
        sys.exit(str(answer))
    return answer


def put(kind, where):
    c, (words, lines) = client(kind, where), layout(100)
    for i in range(0, len(words), 123):
        well(c.write_registers(100 + i, words[i : i + 123], slave=17))
    coils = pattern(300, 3)
    well(c.write_coils(0, coils[:299], slave=17))
    well(c.write_coil(299, coils[299], slave=17))
    well(c.write_register(99, 0x1234, slave=17))
    well(c.mask_write_register(99, 0xFF0F, 0x00A0, unit=17))
    lines.append(f"uint16 ABCD 99 {0x12A4}")
    print("\n".join(lines + [b for b in bits() if b.startswith("coil")]))


def get(kind, where):
    c, words, got = client(kind, where), layout(100)[0], []
    for i in range(0, len(words), 125):
        got += well(c.read_holding_registers(100 + i, min(125, len(words) - i), slave=17)).registers
    coils = well(c.read_coils(0, 300, slave=17)).bits[:300]
    for i, (is_, should) in enumerate(zip(got, words)):
        if is_ != should:
            print(f"holding:{100 + i} is {is_:04x}, should be {should:04x}")
    for i, (is_, should) in enumerate(zip(coils, pattern(300, 3))):
        if is_ != should:
            print(f"coil:{i} is {is_}")
    print(f"{len(got)} registers and {len(coils)} coils compared")


what, kind, where = sys.argv[1:]
if what == "serve":
    asyncio.run(serve(kind, where))
else:
    {"put": put, "get": get}[what](kind, where)
