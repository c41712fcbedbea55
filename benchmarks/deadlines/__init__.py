"""The parts of ``benchmarks.deadline``: links, contenders, the oracle, the processes, the table and the plots."""
