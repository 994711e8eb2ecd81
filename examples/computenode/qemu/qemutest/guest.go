package qemutest

// Greeting is what the guest says when it is up.
const Greeting = "hello from the boot sector"

// Off, typed, makes the guest power itself off. Anything else it echoes.
const Off = "!"

// bootSector is a guest that boots in an instant: 16-bit code on the serial line.
var bootSector = []byte{
	0x31, 0xc0, //       xor ax, ax
	0x8e, 0xd8, //       mov ds, ax
	0xfa,             // cli              ; the firmware reads the line, too
	0xbe, 0x4f, 0x7c, // mov si, Greeting
	0xac,       // print: lodsb
	0x84, 0xc0, //       test al, al
	0x74, 0x05, //       jz echo
	0xe8, 0x2e, 0x00, // call put
	0xeb, 0xf6, //       jmp print
	0xba, 0xfd, 0x03, // echo: mov dx, 0x3fd
	0xec,       //       in al, dx
	0xa8, 0x01, //       test al, 1       ; is there a byte?
	0x75, 0x03, //       jnz typed
	0x90,       // nop
	0xeb, 0xf5, //       jmp echo
	0xba, 0xf8, 0x03, // typed: mov dx, 0x3f8
	0xec,         //       in al, dx
	0x3c, Off[0], //     cmp al, Off
	0x74, 0x0f, //       je off
	0xe8, 0x16, 0x00, // call put
	0x80, 0xfc, 0x0d, // cmp ah, '\r'
	0x75, 0xe5, //       jne echo
	0xb0, 0x0a, //       mov al, '\n'
	0xe8, 0x0c, 0x00, // call put
	0xeb, 0xde, //       jmp echo
	0xba, 0x04, 0x06, // off: mov dx, 0x604  ; ACPI, soft off
	0xb8, 0x00, 0x20, // mov ax, 0x2000
	0xef,       //       out dx, ax
	0xf4,       // halt: hlt
	0xeb, 0xfd, //       jmp halt
	0x88, 0xc4, // put:  mov ah, al
	0xba, 0xfd, 0x03, // mov dx, 0x3fd
	0xec,       // full: in al, dx
	0xa8, 0x20, //       test al, 0x20    ; is there room?
	0x74, 0xfb, //       jz full
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0x88, 0xe0, //       mov al, ah
	0xee, //             out dx, al
	0xc3, //             ret
}

// Disk returns a raw disk image with the guest.
func Disk() []byte {
	disk := make([]byte, 1<<20) // the firmware reads from no smaller one
	n := copy(disk, bootSector)
	copy(disk[n:], Greeting+"\r\n\x00")
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}
