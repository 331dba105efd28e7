"""What a careful colleague says of a dataset before it is trained on: `python -m mim.data.doctor DIR`."""
