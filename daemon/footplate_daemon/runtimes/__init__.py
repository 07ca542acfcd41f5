"""What differs between kinds of inference servers, one module each, behind `base.Runtime`."""
