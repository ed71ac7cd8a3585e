// What CUDA's runtime headers need of the compiler's part of the toolkit, which torch's wheels do not bring.
#pragma once
#define __host__
#define __device__
#define __global__
#define __shared__
#define __constant__
#define __managed__
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __location__(a)
#define __forceinline__ inline
#define __no_return__ __attribute__((noreturn))
#define __annotate__(a) __attribute__((a))
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define CUDARTAPI
#define CUDARTAPI_CDECL
