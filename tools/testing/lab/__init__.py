# SPDX-License-Identifier: GPL-2.0
"""The lab: boots guests, runs commands in them, and judges what their kernels say."""
