"""What turns parts of a stranger's graph into plain operators of ONNX: each module one kind of them."""
