"""What a program needs of its machine: devices, processes, object storage, signals, environment, command line."""
