"""The checks of `verbs`, on the processes of `mpiexec`: not a test itself."""

from verbs import check_verbs

from xpdl.distributed import connect

ranks = connect()
assert ranks is not None
check_verbs(ranks)
print(f"rank {ranks.rank} of {ranks.size} is well", flush=True)
