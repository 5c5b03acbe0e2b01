"""Tests of ortcam: runtime/ and export/ mirror the source, parity/ holds the comparisons with references and peers."""
