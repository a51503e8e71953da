/* Every rank says where it runs; then all of them compute pi together, so that messages really cross the network. */
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, length;
    char host[MPI_MAX_PROCESSOR_NAME];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(host, &length);
    printf("hello from rank %d of %d on %s\n", rank, size, host);

    const long steps = 2000000;
    double part = 0.0, pi = 0.0;
    for (long i = rank; i < steps; i += size) {
        double x = (i + 0.5) / steps;
        part += 4.0 / (1.0 + x * x) / steps;
    }
    MPI_Reduce(&part, &pi, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) printf("pi is about %.9f, summed up by %d ranks\n", pi, size);

    MPI_Finalize();
    return 0;
}
