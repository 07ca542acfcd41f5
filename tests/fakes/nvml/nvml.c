/* A driver library in the shape of libnvidia-ml.so.1, for machines without a GPU.
 *
 * It has the functions that footplate_daemon.gpu.nvml reaches through nvidia-ml-py, with the real names and
 * argument layouts. What they answer stands in the file that FOOTPLATE_FAKE_NVML names, one `key=value` in
 * each line, read anew by every call, so a test changes the machine by rewriting the file:
 *
 *   init=18                what nvmlInitWithFlags returns (0 if absent)
 *   generation=2           a driver that was restarted: who opened an earlier one gets UNINITIALIZED
 *   count=2  driver=570.1
 *   0.error=15             what every question about GPU 0 returns
 *   0.name= 0.uuid= 0.memory.total= 0.memory.reserved= 0.memory.free= 0.utilisation= 0.temperature=
 *   0.temperature.limit= 0.power= (mW) 0.power.limit= 0.energy= (mJ) 0.clock.sm= 0.clock.sm.limit=
 *   0.clock.memory= 0.pcie.generation= 0.pcie.lanes= 0.pcie.rx= (KB/s) 0.pcie.tx= 0.throttle= (bits) 0.fan=
 *   0.compute=4711:1000 4712:-     pid:bytes of who computes; "-" where the driver does not tell the bytes
 *   0.graphics=                    the same of who draws
 *
 * A key that is absent is a value that the GPU does not support.
 *
 * What it does not do: nothing takes time (the real PCIe counters take 20 ms); no permissions, no MIG, no
 * MPS, no hanging, no older versions of the functions; used memory is total less reserved less free, and
 * processes do not change it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9 };

#define LINE 4096
#define NOT_AVAILABLE 0xffffffffffffffffULL

typedef void *Device; /* index + 1 */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned version, sensor; int temperature; } Temperature;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } Process;

static long long opened; /* the generation that was opened; 0: none */

static int find(const char *key, char *value)
{
    char line[LINE];
    size_t length = strlen(key);
    const char *name = getenv("FOOTPLATE_FAKE_NVML");
    FILE *file = name ? fopen(name, "r") : NULL;
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, key, length) && line[length] == '=') {
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file)
        fclose(file);
    return found;
}

static long long number(const char *key, long long otherwise)
{
    char value[LINE];
    return find(key, value) ? atoll(value) : otherwise;
}

/* Says whether questions about this GPU (NULL: about the driver) are answered at all. */
static int trouble(Device device)
{
    char key[64];
    if (!opened || opened != number("generation", 1))
        return UNINITIALIZED;
    if (!device)
        return SUCCESS;
    snprintf(key, sizeof key, "%d.error", (int)(size_t)device - 1);
    return (int)number(key, SUCCESS);
}

static int text_of(Device device, const char *what, char *value)
{
    char key[64];
    int error = trouble(device);
    if (error)
        return error;
    snprintf(key, sizeof key, "%d.%s", (int)(size_t)device - 1, what);
    return find(key, value) ? SUCCESS : NOT_SUPPORTED;
}

static int number_of(Device device, const char *what, unsigned long long *value)
{
    char text[LINE];
    int error = text_of(device, what, text);
    if (!error)
        *value = strtoull(text, NULL, 10);
    return error;
}

static int unsigned_of(Device device, const char *what, unsigned *value)
{
    unsigned long long wide;
    int error = number_of(device, what, &wide);
    if (!error)
        *value = (unsigned)wide;
    return error;
}

static int copy_text(int error, const char *text, char *into, unsigned size)
{
    if (!error)
        snprintf(into, size, "%s", text);
    return error;
}

int nvmlInitWithFlags(unsigned flags)
{
    int error;
    (void)flags;
    if (!getenv("FOOTPLATE_FAKE_NVML"))
        return DRIVER_NOT_LOADED;
    error = (int)number("init", SUCCESS);
    if (!error)
        opened = number("generation", 1);
    return error;
}

int nvmlShutdown(void)
{
    int error = opened ? SUCCESS : UNINITIALIZED;
    opened = 0;
    return error;
}

const char *nvmlErrorString(int error)
{
    (void)error;
    return "An error of the fake driver";
}

int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    char text[LINE] = "";
    int error = trouble(NULL);
    if (!error && !find("driver", text))
        error = NOT_SUPPORTED;
    return copy_text(error, text, version, size);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int error = trouble(NULL);
    if (!error)
        *count = (unsigned)number("count", 0);
    return error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device)
{
    int error = trouble(NULL);
    if (error)
        return error;
    if (index >= number("count", 0))
        return INVALID_ARGUMENT;
    *device = (Device)(size_t)(index + 1);
    return trouble(*device);
}

int nvmlDeviceGetName(Device device, char *name, unsigned size)
{
    char text[LINE] = "";
    return copy_text(text_of(device, "name", text), text, name, size);
}

int nvmlDeviceGetUUID(Device device, char *uuid, unsigned size)
{
    char text[LINE] = "";
    return copy_text(text_of(device, "uuid", text), text, uuid, size);
}

int nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2 *memory)
{
    int error = number_of(device, "memory.total", &memory->total);
    if (error || (error = number_of(device, "memory.free", &memory->free)))
        return error;
    if (number_of(device, "memory.reserved", &memory->reserved))
        memory->reserved = 0;
    memory->used = memory->total - memory->reserved - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *memory)
{
    MemoryV2 newer;
    int error = nvmlDeviceGetMemoryInfo_v2(device, &newer);
    if (!error) {
        memory->total = newer.total;
        memory->free = newer.free;
        memory->used = newer.total - newer.free;
    }
    return error;
}

int nvmlDeviceGetUtilizationRates(Device device, Utilization *rates)
{
    rates->memory = 0;
    return unsigned_of(device, "utilisation", &rates->gpu);
}

int nvmlDeviceGetTemperatureV(Device device, Temperature *temperature)
{
    unsigned value;
    int error = unsigned_of(device, "temperature", &value);
    if (!error)
        temperature->temperature = (int)value;
    return error;
}

int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *temperature)
{
    (void)sensor;
    return unsigned_of(device, "temperature", temperature);
}

int nvmlDeviceGetTemperatureThreshold(Device device, unsigned threshold, unsigned *temperature)
{
    return threshold == 1 ? unsigned_of(device, "temperature.limit", temperature) : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts)
{
    return unsigned_of(device, "power", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *milliwatts)
{
    return unsigned_of(device, "power.limit", milliwatts);
}

int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *millijoules)
{
    return number_of(device, "energy", millijoules);
}

int nvmlDeviceGetMaxClockInfo(Device device, unsigned type, unsigned *mhz)
{
    return type == 2 ? NOT_SUPPORTED : unsigned_of(device, "clock.sm.limit", mhz);
}

int nvmlDeviceGetCurrPcieLinkGeneration(Device device, unsigned *generation)
{
    return unsigned_of(device, "pcie.generation", generation);
}

int nvmlDeviceGetCurrPcieLinkWidth(Device device, unsigned *lanes)
{
    return unsigned_of(device, "pcie.lanes", lanes);
}

int nvmlDeviceGetClockInfo(Device device, unsigned type, unsigned *mhz)
{
    return unsigned_of(device, type == 2 ? "clock.memory" : "clock.sm", mhz);
}

int nvmlDeviceGetPcieThroughput(Device device, unsigned counter, unsigned *kilobytes)
{
    return unsigned_of(device, counter == 0 ? "pcie.tx" : "pcie.rx", kilobytes);
}

int nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *reasons)
{
    return number_of(device, "throttle", reasons);
}

int nvmlDeviceGetFanSpeed(Device device, unsigned *percent)
{
    return unsigned_of(device, "fan", percent);
}

/* As the real one: without room for all of them it says how many there are. */
static int processes(Device device, const char *what, unsigned *count, Process *into)
{
    char text[LINE];
    char *entry, *rest = text;
    unsigned room = *count, found = 0;
    int error = text_of(device, what, text);
    if (error)
        return error;
    while ((entry = strtok_r(rest, " ", &rest))) {
        char *bytes = strchr(entry, ':');
        if (into && found < room && bytes) {
            into[found].pid = (unsigned)atoi(entry);
            into[found].bytes = bytes[1] == '-' ? NOT_AVAILABLE : strtoull(bytes + 1, NULL, 10);
            into[found].gpu_instance = into[found].compute_instance = 0xffffffffU;
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, Process *into)
{
    return processes(device, "compute", count, into);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Device device, unsigned *count, Process *into)
{
    return processes(device, "graphics", count, into);
}
