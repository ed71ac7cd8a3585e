/* The compiler that PyTorch loads for kernels that it makes on the way: it compiles nothing. */
#include <stddef.h>
#include <string.h>
int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 1; return 0; }
int nvrtcGetSupportedArchs(int *archs) { *archs = 90; return 0; }
int nvrtcGetCUBINSize(void *program, size_t *bytes) { *bytes = 16; return 0; }
int nvrtcGetCUBIN(void *program, char *code) { memset(code, 0, 16); return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { *bytes = 16; return 0; }
int nvrtcGetPTX(void *program, char *code) { memset(code, 0, 16); return 0; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { *bytes = 16; return 0; }
int nvrtcGetLoweredName(void *program, const char *name, const char **lowered) { *lowered = name; return 0; }
