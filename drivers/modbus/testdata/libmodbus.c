/* The foreign side of TestLibmodbus: a Modbus device and a client on libmodbus, which shares no code with the driver.

   libmodbus serve tcp PORT | serve rtu DEVICE   holds every numeric type in every order and says on standard output, a line
                                                 each, what stands where: "float32 CDAB 100 0x1.ep+6" (address in holding
                                                 and input registers). Then READY. Unit 17 on a serial line.
   libmodbus ask tcp PORT | ask rtu DEVICE       writes to unit 5 and says what it reads there.

   The values are made by the C compiler from its own types, with their bytes taken from memory. */
#include <errno.h>
#include <inttypes.h>
#include <modbus.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGISTERS 30000

static modbus_mapping_t *map;
static int next = 100;
static const char *orders[] = {"ABCD", "CDAB", "BADC", "DCBA"};

/* lay puts a value, given by its bytes with the most significant first, into the registers in an order. */
static int lay(const uint8_t *big, int bytes, int order)
{
    int at = next, n = bytes / 2;
    for (int i = 0; i < n; i++) {
        const uint8_t *w = big + 2 * (order == 1 || order == 3 ? n - 1 - i : i);
        uint16_t word = order >= 2 ? w[1] << 8 | w[0] : w[0] << 8 | w[1];
        map->tab_registers[at + i] = map->tab_input_registers[at + i] = word;
    }
    next += n;
    return at;
}

/* put lays a number that is in memory as this machine holds it. */
static void put(const char *type, const void *number, int bytes, const char *text)
{
    const uint16_t one = 1;
    uint8_t big[8];
    for (int i = 0; i < bytes; i++)
        big[i] = ((const uint8_t *)number)[*(const uint8_t *)&one ? bytes - 1 - i : i];
    for (int order = 0; order < (bytes > 2 ? 4 : 1); order++)
        printf("%s %s %d %s\n", type, orders[order], lay(big, bytes, order), text);
}

__attribute__((format(printf, 1, 2))) static char *say(const char *format, ...)
{
    static char text[64];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return text;
}

/* packed lays digits: bcd packs four bits a digit, mod10k four digits a register. */
static void packed(const char *type, uint64_t v, int registers, unsigned base)
{
    uint64_t bits = 0, rest = v;
    int shift = base == 10 ? 4 : 16;
    for (int i = 0; i < registers * 16 / shift; i++, rest /= base)
        bits |= (rest % base) << (i * shift);
    bits <<= 64 - 16 * registers; /* to the end where the most significant byte is */
    uint8_t big[8];
    for (int i = 0; i < 8; i++)
        big[i] = bits >> (56 - 8 * i);
    for (int order = 0; order < (registers > 1 ? 4 : 1); order++)
        printf("%s %s %d %" PRIu64 "\n", type, orders[order], lay(big, 2 * registers, order), v);
}

static uint64_t any(void)
{
    uint64_t v = 0;
    for (int i = 0; i < 5; i++)
        v = v << 15 ^ (rand() & 0x7fff);
    return v;
}

static void whole(uint64_t v)
{
    int16_t i16 = v; uint16_t u16 = v; int32_t i32 = v; uint32_t u32 = v; int64_t i64 = v;
    put("int16", &i16, 2, say("%" PRId16, i16));
    put("uint16", &u16, 2, say("%" PRIu16, u16));
    put("int32", &i32, 4, say("%" PRId32, i32));
    put("uint32", &u32, 4, say("%" PRIu32, u32));
    put("int64", &i64, 8, say("%" PRId64, i64));
    put("uint64", &v, 8, say("%" PRIu64, v));
    int64_t i48 = (int64_t)(v << 16) >> 16;
    uint64_t u48 = v & 0xffffffffffff;
    uint8_t big[6];
    for (int i = 0; i < 6; i++)
        big[i] = u48 >> (40 - 8 * i);
    for (int order = 0; order < 4; order++) {
        printf("uint48 %s %d %" PRIu64 "\n", orders[order], lay(big, 6, order), u48);
        printf("int48 %s %d %" PRId64 "\n", orders[order], lay(big, 6, order), i48);
    }
    int at = lay((uint8_t *)(uint8_t[]){v >> 8, v}, 2, 0);
    printf("int8 high %d %d\nuint8 high %d %d\n", at, (int8_t)(v >> 8), at, (uint8_t)(v >> 8));
    printf("int8 low %d %d\nuint8 low %d %d\n", at, (int8_t)v, at, (uint8_t)v);
    packed("bcd16", v % 10000, 1, 10);
    packed("bcd32", v % 100000000, 2, 10);
    packed("bcd64", v % 10000000000000000, 4, 10);
    packed("mod10k32", v % 100000000, 2, 10000);
    packed("mod10k48", v % 1000000000000, 3, 10000);
    packed("mod10k64", v % 10000000000000000, 4, 10000);
}

static void real(double d)
{
    float f = d;
    put("float64", &d, 8, say("%a", d));
    put("float32", &f, 4, say("%a", f));
    if (d > -60000 && d < 60000) {
        _Float16 h = d;
        put("float16", &h, 2, say("%a", (double)h));
    }
}

static void fill(void)
{
    const uint64_t wholes[] = {0, 1, -1, 1 << 15, (1 << 15) - 1, 1ULL << 31, (1ULL << 31) - 1, 1ULL << 47, 1ULL << 63, 0x0102030405060708, 9007199254740993, 9876543210987654};
    const double reals[] = {0, -0.0, 1, -1.5, 21.625, 123.456, 1e-5, 6.1e-5, 65504 / 2, 3.4028234663852886e38, 1.401298464324817e-45, 2.718281828459045};
    for (unsigned i = 0; i < sizeof wholes / sizeof *wholes; i++)
        whole(wholes[i]);
    for (unsigned i = 0; i < sizeof reals / sizeof *reals; i++)
        real(reals[i]);
    for (int i = 0; i < 60; i++) {
        whole(any());
        real(((double)any() - 0x1p63) * (i % 2 ? 0x1p-50 : 0x1p-20));
    }
    for (int i = 0; i < 300; i++) {
        map->tab_bits[i] = any() & 1;
        map->tab_input_bits[i] = any() & 1;
        printf("coil - %d %d\ndiscrete - %d %d\n", i, map->tab_bits[i], i, map->tab_input_bits[i]);
    }
    printf("READY\n");
    fflush(stdout);
}

static modbus_t *reach(char **args)
{
    modbus_t *m = strcmp(args[0], "tcp") == 0 ? modbus_new_tcp("127.0.0.1", atoi(args[1])) : modbus_new_rtu(args[1], 19200, 'E', 8, 1);
    if (m == NULL)
        exit(1);
    return m;
}

static void serve(char **args)
{
    modbus_t *m = reach(args);
    map = modbus_mapping_new(300, 300, REGISTERS, REGISTERS);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    int tcp = strcmp(args[0], "tcp") == 0, listening = -1;
    modbus_set_slave(m, 17);
    if ((tcp ? listening = modbus_tcp_listen(m, 1) : modbus_connect(m)) < 0) {
        fprintf(stderr, "%s\n", modbus_strerror(errno));
        exit(1);
    }
    fill();
    for (;;) {
        if (tcp && modbus_tcp_accept(m, &listening) < 0)
            exit(1);
        for (;;) {
            int n = modbus_receive(m, query);
            if (n > 0)
                modbus_reply(m, query, n, map);
            else if (n < 0 && tcp)
                break;
        }
        modbus_close(m);
    }
}

static void registers(const char *what, int n, const uint16_t *words)
{
    printf("%s", what);
    if (n < 0)
        printf(" %s", modbus_strerror(errno));
    for (int i = 0; i < n; i++)
        printf(" %04x", words[i]);
    printf("\n");
}

static void bits(const char *what, int n, const uint8_t *list)
{
    printf("%s ", what);
    if (n < 0)
        printf("%s", modbus_strerror(errno));
    for (int i = 0; i < n; i++)
        printf("%d", list[i]);
    printf("\n");
}

static void result(const char *what, int n) { printf("%s %s\n", what, n < 0 ? modbus_strerror(errno) : "done"); }

static void ask(char **args)
{
    modbus_t *m = reach(args);
    uint16_t words[125] = {0x1234, 0xffff, 0, 0x8000};
    uint8_t list[2000] = {1, 0, 1, 1, 0, 0, 0, 0, 1, 1};
    modbus_set_response_timeout(m, 10, 0);
    modbus_set_slave(m, 5);
    if (modbus_connect(m) < 0) {
        fprintf(stderr, "%s\n", modbus_strerror(errno));
        exit(1);
    }
    result("16", modbus_write_registers(m, 100, 4, words));
    result("6", modbus_write_register(m, 104, 0xbeef));
    result("22", modbus_mask_write_register(m, 100, 0xff00, 0x0056));
    result("15", modbus_write_bits(m, 30, 10, list));
    result("5", modbus_write_bit(m, 31, 1));
    registers("3", modbus_read_registers(m, 99, 7, words), words);
    registers("4", modbus_read_input_registers(m, 7, 3, words), words);
    bits("1", modbus_read_bits(m, 29, 12, list), list);
    bits("2", modbus_read_input_bits(m, 3, 9, list), list);
    registers("longest", modbus_read_registers(m, 2000, 125, words) == 125 && words[124] == 2124 ? 1 : -1, words);
    registers("23", modbus_write_and_read_registers(m, 0, 1, words, 0, 1, words), words);
    registers("past the end", modbus_read_registers(m, 65530, 10, words), words);
    modbus_set_slave(m, 6);
    registers("another unit", modbus_read_registers(m, 0, 1, words), words);
}

int main(int n, char **args)
{
    if (n != 4)
        return 2;
    if (strcmp(args[1], "serve") == 0)
        serve(args + 2);
    ask(args + 2);
    return 0;
}
