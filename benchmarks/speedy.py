"""Simulate the data of a whole climate model: ``python -m benchmarks.speedy``.

Two members of SPEEDY T30, daily, for `benchmarks.table`: about 25 s a month of weather on one core, 15 minutes in all.
A member that is complete is not run again.
"""

from benchmarks.data.speedy import simulate

if __name__ == "__main__":
    simulate()
