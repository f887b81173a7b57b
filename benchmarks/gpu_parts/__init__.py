"""The parts of ``benchmarks.gpu``: one file each, whose ``run(table, options)`` adds rows."""

NETWORKS = ("small_cnn", "polymnist_resnet", "hippocampal", "celeba", "cub")
