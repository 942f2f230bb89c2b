"""Proofs without torch: small feed-forward networks in numpy, while a deep learning library is not even imported.

Importing torch takes longer than many a proof. What is read here is exactly what the ONNX file says, in double
precision; what is not understood, or not proved soon, is left to the packages that know more.
"""
