/* The CUDA runtime of a GPU that computes nothing: kernels do nothing, and every output is zeros or
 * what was there. What is real is what the library above asks for: where it places operators, what
 * it allocates, what it records and when. Memory of a device can be copied and not touched: a host
 * that follows a pointer to it is killed, as it should be.
 *
 * SILENT_DEVICES  how many GPUs there are (1)         SILENT_BYTES  the memory of each (64 GiB)
 * silent_lose(n)  GPU n fails at everything from now on; -1: none does
 *
 * While kernels are recorded, in whichever thread, what could be part of the recording is refused,
 * as in cudaStreamCaptureModeGlobal.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "driver_types.h"

typedef cudaError_t E;
#define CHECK(what) do { E code_ = (what); if (code_) return failed(code_); } while (0)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread int current;
static __thread E last;
static size_t used[16];
static int lost = -1, recording, spoiled;
static long recorder;

static size_t number(const char *name, size_t otherwise) {
    const char *given = getenv(name);
    return given ? strtoull(given, 0, 10) : otherwise;
}
static int devices(void) { return (int)number("SILENT_DEVICES", 1); }
static size_t room(void) { return number("SILENT_BYTES", (size_t)64 << 30); }
static E failed(E code) { return last = code; }
static E alive(void) { return lost == current ? cudaErrorLaunchFailure : cudaSuccess; }
static E unrecorded(void) {
    if (!recording) return cudaSuccess;
    spoiled = 1;
    return cudaErrorStreamCaptureUnsupported;
}
static E usable(void) { E code = alive(); return code ? code : unrecorded(); }
static E handle(void **made) { *made = calloc(1, 64); return cudaSuccess; }

void silent_lose(int device) { lost = device; }

/* Memory: the devices' addresses, and the same bytes where this file may touch them. No address is
 * given out twice. A block begins with a page that says its size and device. */
enum { PAGE = 4096 };
static const size_t REGION = (size_t)1 << 40;
static char *untouchable, *touchable;
static size_t given;
static int memory;
struct head { size_t size; int device; };
__attribute__((constructor)) static void reserve(void) {
    memory = memfd_create("devices", MFD_CLOEXEC);
    if (ftruncate(memory, REGION)) abort();
    untouchable = mmap(0, REGION, PROT_NONE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    touchable = mmap(0, REGION, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    if (untouchable == MAP_FAILED || touchable == MAP_FAILED) abort();
}
static void *at(const void *pointer) {
    size_t offset = (const char *)pointer - untouchable;
    return offset < REGION ? touchable + offset : (void *)pointer;
}
E cudaMalloc(void **made, size_t size) {
    CHECK(usable());
    size_t pages = (size + PAGE - 1) / PAGE * PAGE;
    pthread_mutex_lock(&mutex);
    int full = used[current] + size > room() || given + PAGE + pages > REGION;
    size_t start = given;
    if (!full) used[current] += size, given += PAGE + pages;
    pthread_mutex_unlock(&mutex);
    if (full) return failed(cudaErrorMemoryAllocation);
    *(struct head *)(touchable + start) = (struct head){size, current};
    *made = untouchable + start + PAGE;
    return cudaSuccess;
}
E cudaFree(void *freed) {
    if (!freed) return cudaSuccess;
    CHECK(unrecorded());
    struct head block = *(struct head *)((char *)at(freed) - PAGE);
    pthread_mutex_lock(&mutex);
    used[block.device] -= block.size;
    pthread_mutex_unlock(&mutex);
    fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (char *)freed - untouchable, block.size);
    return cudaSuccess;
}
E cudaMallocFromPoolAsync(void **made, size_t size, void *pool, void *stream) { return cudaMalloc(made, size); }
E cudaFreeAsync(void *freed, void *stream) { return cudaFree(freed); }
E cudaMallocHost(void **made, size_t size) { *made = calloc(1, size ? size : 1); return cudaSuccess; }
E cudaHostAlloc(void **made, size_t size, unsigned flags) { CHECK(usable()); return cudaMallocHost(made, size); }
E cudaFreeHost(void *freed) { free(freed); return cudaSuccess; }
E cudaMemGetInfo(size_t *left, size_t *all) { *all = room(), *left = *all - used[current]; return cudaSuccess; }
E cudaMemcpy(void *to, const void *from, size_t size, int kind) { CHECK(usable()); memcpy(at(to), at(from), size); return cudaSuccess; }
E cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) { CHECK(alive()); memcpy(at(to), at(from), size); return cudaSuccess; }
E cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t rows, int kind, void *stream) {
    CHECK(alive());
    for (size_t row = 0; row < rows; row++)
        memcpy((char *)at(to) + row * to_pitch, (char *)at(from) + row * from_pitch, width);
    return cudaSuccess;
}
E cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset, int kind) { memset(at(to), 0, size); return cudaSuccess; }
E cudaMemset(void *to, int value, size_t size) { CHECK(usable()); memset(at(to), value, size); return cudaSuccess; }
E cudaMemsetAsync(void *to, int value, size_t size, void *stream) { CHECK(alive()); memset(at(to), value, size); return cudaSuccess; }
E cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
    memset(found, 0, sizeof *found);
    found->type = cudaMemoryTypeDevice, found->device = current;
    return cudaSuccess;
}
E cudaMemPoolCreate(void **made, const void *settings) { return handle(made); }
E cudaMemPoolGetAttribute(void *pool, int which, unsigned long long *value) { *value = 0; return cudaSuccess; }

/* Devices, which are all alike. */
E cudaGetDeviceCount(int *count) { *count = devices(); return *count ? cudaSuccess : failed(cudaErrorNoDevice); }
E cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
E cudaSetDevice(int device) {
    if (device < 0 || device >= devices()) return failed(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}
E cudaDeviceSynchronize(void) { CHECK(usable()); return cudaSuccess; }
E cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    if (device >= devices()) return failed(cudaErrorInvalidDevice);
    memset(found, 0, sizeof *found);
    strcpy(found->name, "silent");
    found->major = 9, found->totalGlobalMem = room(), found->multiProcessorCount = 132;
    found->warpSize = 32, found->maxThreadsPerBlock = 1024, found->maxThreadsPerMultiProcessor = 2048;
    found->sharedMemPerBlock = 49152, found->sharedMemPerBlockOptin = 232448;
    found->sharedMemPerMultiprocessor = 233472, found->l2CacheSize = 50 << 20;
    found->regsPerBlock = found->regsPerMultiprocessor = 65536, found->textureAlignment = 512;
    found->maxGridSize[0] = 2147483647, found->maxGridSize[1] = found->maxGridSize[2] = 65535;
    found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024, found->maxThreadsDim[2] = 64;
    return cudaSuccess;
}
E cudaDeviceGetAttribute(int *value, int which, int device) {
    *value = 0;
    switch (which) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 233472; break;
    }
    return cudaSuccess;
}
E cudaDriverGetVersion(int *version) { *version = 13000; return cudaSuccess; }
E cudaRuntimeGetVersion(int *version) { *version = 13000; return cudaSuccess; }
E cudaGetDriverEntryPointByVersion(const char *name, void **found, unsigned version, unsigned long long flags, int *state) {
    *found = 0;
    if (state) *state = 1;
    return cudaSuccess;
}

/* Errors. */
E cudaPeekAtLastError(void) { E code = alive(); return code ? code : last; }
E cudaGetLastError(void) { E code = cudaPeekAtLastError(); last = cudaSuccess; return code; }
const char *cudaGetErrorName(E code) { return "cudaError"; }
const char *cudaGetErrorString(E code) {
    switch ((int)code) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    }
    return "an error";
}

/* Streams, events and recordings. */
E cudaStreamCreate(void **made) { CHECK(alive()); return handle(made); }
E cudaStreamCreateWithFlags(void **made, unsigned flags) { return cudaStreamCreate(made); }
E cudaStreamSynchronize(void *stream) {
    CHECK(alive());
    if (recording && syscall(SYS_gettid) == recorder) CHECK(unrecorded());
    return cudaSuccess;
}
E cudaStreamIsCapturing(void *stream, int *state) { *state = recording && syscall(SYS_gettid) == recorder; return cudaSuccess; }
E cudaStreamBeginCapture(void *stream, int mode) {
    CHECK(alive());
    recording = 1, spoiled = 0, recorder = syscall(SYS_gettid);
    return cudaSuccess;
}
E cudaStreamEndCapture(void *stream, void **made) {
    recording = 0;
    if (spoiled) return failed(cudaErrorStreamCaptureInvalidated);
    return handle(made);
}
E cudaGraphInstantiate(void **made, void *graph, unsigned long long flags) { return handle(made); }
E cudaGraphLaunch(void *executable, void *stream) { return failed(alive()); }
E cudaEventCreate(void **made) { return handle(made); }
E cudaEventCreateWithFlags(void **made, unsigned flags) { return handle(made); }
E cudaEventRecord(void *event, void *stream) { return failed(alive()); }
E cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return failed(alive()); }
E cudaEventSynchronize(void *event) { return failed(alive()); }

/* Kernels. */
E cudaLaunchKernel(const void *kernel, ...) { return failed(alive()); }
E __cudaLaunchKernel(void *kernel, ...) { return failed(alive()); }
E cudaLaunchKernelExC(void *settings, void *kernel, void **arguments) { return failed(alive()); }
E cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) { call(data); return cudaSuccess; }
E __cudaGetKernel(void **found, const void *kernel) { *found = (void *)kernel; return cudaSuccess; }
E cudaLibraryLoadData(void **made, ...) { return handle(made); }
E cudaLibraryGetKernel(void **found, ...) { return handle(found); }
E cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024, found->numRegs = 32, found->binaryVersion = found->ptxVersion = 90;
    return cudaSuccess;
}
E cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, ...) { *count = 2; return cudaSuccess; }
void **__cudaRegisterFatBinary(void *binary) { static void *made[4]; return made; }
